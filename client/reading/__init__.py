"""What a model's answer means at this site: calibration, uncertainty, warnings, when to refer."""
