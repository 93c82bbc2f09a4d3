"""What a device is: profiles as data, a probe of this machine, and how long a token takes on it."""
