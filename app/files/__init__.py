"""Files: what a tenant has uploaded. The content lies in the storage, a row says what it is."""
