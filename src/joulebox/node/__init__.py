"""The node: one prompt at a time under the meters, with nothing else running; what it sends back is evidence."""
