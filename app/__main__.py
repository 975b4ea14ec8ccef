"""`python -m app`: everything a new machine needs to see the application run."""

from app.cli.program import main

if __name__ == "__main__":
    main()
