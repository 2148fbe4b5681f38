"""Explore what crashes leave of a program's writes."""
