"""The command of :mod:`steering_core.early_checks.command`."""

from steering_core.early_checks.command import main

if __name__ == "__main__":
    raise SystemExit(main())
