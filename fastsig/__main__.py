import sys

from fastsig.cli import main

sys.exit(main())
