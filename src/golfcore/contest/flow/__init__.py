"""Follow the data of an entry's programs without running them."""
