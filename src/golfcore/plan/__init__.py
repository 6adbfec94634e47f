"""Plan a run before it is run or rented: predict its bytes, memory, time and price."""
