"""The flows: order only. Which step after which, what runs beside what, what happens at the end."""
