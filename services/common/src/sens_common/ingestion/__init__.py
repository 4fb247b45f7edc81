"""What the ingestion workers share, whichever way messages come: receipt times, rates and limits of tenants, envelopes in the stream."""
