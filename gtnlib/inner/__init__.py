"""The inner loop: a student as a pure function of a flat vector, its step, compiled and stacked."""
