"""Programs that people start with ompbind, as they are installed: one table of them, whose commands
stand on the pages of docs/how-to/with/, and one set of checks for all."""
