"""The HTTP side of the service. Needs the extra `serving`: pip install 'tfdml[serving]'."""
