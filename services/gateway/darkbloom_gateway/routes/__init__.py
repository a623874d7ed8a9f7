"""The control plane: translate, delegate, translate back."""
