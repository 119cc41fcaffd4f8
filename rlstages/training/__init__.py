"""One run from its first stage to its last: started, checked, stopped and resumed."""
