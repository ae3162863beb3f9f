"""Other frameworks' own applications, written as their documentation shows, to measure against."""
