"""How well adapters of one base predict documents, one by one."""
