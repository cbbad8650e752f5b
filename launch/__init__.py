"""What runs, in which order: recipe -> experiment folders -> tasks and their edges. No torch."""
