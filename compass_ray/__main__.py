"""``python -m compass_ray`` is ``compass-ray``."""

from compass_ray.cli import main

if __name__ == "__main__":
    main()
