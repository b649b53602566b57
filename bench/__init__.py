"""What ompbind costs, measured beside what people use today. `make bench`."""
