"""What backs the word that a gateway keeps nothing: hardware's quote, or an honest none."""
