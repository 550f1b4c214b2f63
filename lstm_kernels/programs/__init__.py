"""Programs that use the library. The library imports none of them."""
