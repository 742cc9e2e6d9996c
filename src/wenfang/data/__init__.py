"""From files to immutable dataset versions: readers, checks, the data card, splits. Knows nothing of models or stores."""
