"""The server: takes prompts, queues them, hands them to nodes, keeps the books and shows the receipts."""
