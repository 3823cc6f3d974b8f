"""What a campaign of years must reach, beside having found nothing."""

LONG_YEARS = 15
LEAST_TAKEN = 2000  # times, each branch of the sequence table, in so many years
READINGS_A_YEAR = 700_000  # at the intervals that a city would use
