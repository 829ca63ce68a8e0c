"""Which version of a bundle serves: new ones come, bad ones are refused, and people roll back."""
