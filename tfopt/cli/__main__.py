"""The console command as a module: `python -m tfopt.cli compress --help`."""

from tfopt.cli.main import main

if __name__ == "__main__":
    main()
