"""A small CRM: people, companies and opportunities. It holds no line about tenants."""
