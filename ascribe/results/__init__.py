"""Score vectors too large for the ledger: one Parquet file a job on the store, with the manifest in the ledger."""
