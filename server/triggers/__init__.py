"""When a task is trained again: schedules, new confirmed cases, drift, and by hand."""
