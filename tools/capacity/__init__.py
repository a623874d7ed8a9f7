"""What a mesh of so many providers asks for, and what that costs at stated prices."""
