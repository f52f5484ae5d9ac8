import sys

from fastsig.cli import main

if __name__ == "__main__":  # not in the processes that multiprocessing spawns
    sys.exit(main())
