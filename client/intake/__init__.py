"""Importing labelled images: tables, class trees and npz files."""
