"""A demonstration on real Linux TCP, in network namespaces of its own."""
