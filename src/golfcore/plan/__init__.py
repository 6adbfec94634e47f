"""What a run will take, before it is run or rented: ``make_plan`` and the models behind it."""
