"""What tests/vm/suite judges with: pure computations over files that a machine left behind."""
