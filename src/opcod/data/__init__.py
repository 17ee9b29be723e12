"""Questions: the schema and its checks, their sources, and the DataModule that serves them."""
