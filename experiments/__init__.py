"""Assignment, exposure, and statistics that stay valid while you look."""
