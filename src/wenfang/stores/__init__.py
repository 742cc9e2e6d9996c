"""Where things are kept: tables and blobs, each store one file whose name is its URL scheme. Knows nothing of what is kept."""
