"""What authors of new back-ends need: conformance suites, shipped with the package."""
