"""The suites' cases, asked like any catalog and judged."""
