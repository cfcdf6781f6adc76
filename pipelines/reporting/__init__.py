"""What people read: pages."""
