"""The words everybody uses: records, ports, errors, settings, registry, operations, text. Knows nothing of the floors above."""
