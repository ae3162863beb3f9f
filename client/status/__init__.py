"""How the site stands, for hospital IT: connection, certificates, disk, privacy, backup, alarms."""
