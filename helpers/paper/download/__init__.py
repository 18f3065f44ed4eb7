"""Downloads of retrieved images: public addresses only, politely, through img2dataset."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # img2dataset's import would ask for news
