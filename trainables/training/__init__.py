"""One cell: a compiled model, its steps, its scores and its entry in the ledger."""
