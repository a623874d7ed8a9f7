"""Who is who: sign-in, the owner's keys, device codes, provider tokens, links with proof."""
