"""The database: connections, transactions, migrations, and conversion of rows."""
