"""What commands of ``sens`` have in common, whichever package defines them: options, tables, and where the instance is."""
