"""What everything stands on: errors, paths, settings, the ledger and how its files are believed."""
