"""The console command `tfopt`; each subcommand is a module here."""
