"""How fast the parts are: rounds in processes of their own, and the rows that they come to."""
